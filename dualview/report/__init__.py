"""One self-contained HTML page about a store: pictures, maps, curves and tables, each with what it means.

    from dualview.report.page import ContactSheet, build_report

Functions take plain data (bytes, numbers, arrays), no store: `page` lays out, `figures` draws.
"""

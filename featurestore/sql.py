"""SQL over a store, read-only: every table a view, and `catalogue`, which joins them.

    items, images, interactions, quarantine      as stored; removed items are still in `items`
    preferences                                  states of users' preferences; today's only, no release holds them
    feature_NAME                                 the active recipe's cells (a dot in a feature's name becomes _)
    NAME__RECIPE8                                cells of any recipe, kept from earlier ones
    catalogue                                    live items, with feature_NAME and feature_NAME_status of each feature

All views look at one pinned version of each table: today's, or a release's. The connection is locked before it sees
the query: no file or network, no extension, no setting can be changed, and the transaction takes no write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featurestore import schema
from featurestore.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    import duckdb

    from featurestore.store import Store

CATALOGUE = "catalogue"
READING = (
    "SELECT",
    "EXPLAIN",
)  # DESCRIBE, SHOW, SUMMARIZE, FROM, VALUES and WITH ... SELECT are SELECTs to DuckDB
EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+|verbose\s+|\([^)]*\)\s*)*", re.IGNORECASE)
REMEDY = "ask with SELECT, DESCRIBE, SHOW or EXPLAIN; `SHOW TABLES` lists what there is"


def query(store: Store, sql: str, release: str | None = None) -> pa.Table:
    """Answer one reading statement. release: a name or "latest"; None asks today's tables.

    Raises BadInput for anything that does not read, and for what DuckDB cannot make sense of.
    """
    import duckdb

    connection = locked_connection()
    try:
        _check(connection, sql)
        tables, active = _pinned(store, release)
        _register(connection, store, tables, active)
        connection.execute("BEGIN TRANSACTION READ ONLY")
        answer: pa.Table = connection.sql(sql).to_arrow_table()
        return answer
    except duckdb.CatalogException as error:
        raise _unknown_table(store, connection, str(error)) from None
    except duckdb.Error as error:
        raise BadInput(f"the query failed: {error}", remedy=REMEDY) from None
    finally:
        connection.close()


UNKNOWN = re.compile(r"Table with name (.+?) does not exist")


def _unknown_table(store: Store, connection: duckdb.DuckDBPyConnection, said: str) -> BadInput:
    """DuckDB's word on a wrong name, with our tables to choose from instead of its own."""
    missed = UNKNOWN.search(said)
    if missed is None:
        return BadInput(f"the query failed: {said}", remedy=REMEDY)
    name = missed[1]
    known = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
    if schema.ITEMS not in known:
        remedy = f"the store holds no items yet: dualview ingest {store.root} ITEMS"
    else:
        near = did_you_mean(name, known)
        remedy = near if near.startswith("did") else f"{REMEDY}; {near}"
    return BadInput(f"there is no table '{name}'", remedy=remedy)


def locked_connection(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An empty DuckDB in memory that reads only what is registered with it. threads: None for DuckDB's own choice."""
    import duckdb

    settings: dict[str, Any] = {
        "python_enable_replacements": False,  # else a query could name our variables as tables
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "enable_external_access": False,
        "lock_configuration": True,
    }
    if threads is not None:
        settings["threads"] = threads
    return duckdb.connect(":memory:", config=settings)


def view_name(feature: str) -> str:
    """Under which name a feature stands in SQL and in the catalogue of a release."""
    return f"feature_{feature.replace('.', '_')}"


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise BadInput(f"the query holds {len(statements)} statements; one is answered", remedy=REMEDY)
    kind = statements[0].type.name
    if kind not in READING:
        raise BadInput(f"{kind} is not answered here: a store is changed by its own verbs", remedy=REMEDY)
    if kind == "EXPLAIN":
        _check(connection, EXPLAIN.sub("", sql, count=1))


def _pinned(store: Store, release: str | None) -> tuple[dict[str, int], dict[str, str]]:
    """Version of each table, and the table of each feature's active recipe."""
    if release is None:
        versions = {name: store.tables.version(name) for name in store.tables.names()}
        active = {name: recipe.table(name) for name, recipe in store.recipes().items()}
    else:
        manifest = store.release(release).manifest
        versions = dict(manifest["tables"])
        active = {name: facts["table"] for name, facts in manifest["features"].items() if facts["table"]}
    return versions, {feature: table for feature, table in active.items() if table in versions}


def _register(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    versions: Mapping[str, int],
    active: Mapping[str, str],
) -> None:
    for name, version in versions.items():
        connection.register(name, store.tables.dataset(name, version))
    taken: dict[str, str] = {}
    for feature, table in active.items():
        name = view_name(feature)
        if name in taken:
            raise BadInput(
                f"features '{taken[name]}' and '{feature}' both come to be called {name} in SQL",
                remedy="rename one of them in features.toml",
            )
        taken[name] = feature
        connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM "{table}"')
    if schema.ITEMS in versions:
        connection.execute(f"CREATE VIEW {CATALOGUE} AS {_catalogue(store, versions, list(taken))}")


def _catalogue(store: Store, versions: Mapping[str, int], views: list[str]) -> str:
    own = store.tables.dataset(schema.ITEMS, versions[schema.ITEMS]).schema.names
    shown = [n for n in own if not n.startswith("_") or n == schema.IMAGE_SHA256]
    columns = ['i."' + name.replace('"', '""') + '"' for name in shown]
    joins = []
    for view in views:
        columns.append(f'"{view}".{schema.VALUE} AS "{view}"')
        columns.append(f'"{view}".{schema.STATUS} AS "{view}_status"')
        joins.append(f'LEFT JOIN "{view}" ON i.{schema.ITEM_ID} = "{view}".{schema.ITEM_ID}')
    return f"SELECT {', '.join(columns)} FROM {schema.ITEMS} i {' '.join(joins)} WHERE i.{schema.DELETED} IS NOT TRUE"

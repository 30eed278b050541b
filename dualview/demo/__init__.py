"""A shop that the project draws itself: pictures, words, customers, and the truth about all three.

`catalogue` draws the products, `taste` the customers and their events, `truth` knows what is attainable and
checks that no attribute leaks into a modality that must not carry it. Nothing here knows the store: what
comes out is a folder of plain files, as a shop would hand it over."""

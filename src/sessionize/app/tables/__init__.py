"""The tables of a home: loading, querying, explaining, reconciling and maintaining them."""

from eyesmith.eval.published.tables import TABLES, PublishedRow, PublishedTable, published_rows, published_table

__all__ = ["TABLES", "PublishedRow", "PublishedTable", "published_rows", "published_table"]

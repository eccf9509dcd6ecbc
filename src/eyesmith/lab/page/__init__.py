"""The page of a plan: findings, figures, tables, pictures."""

from eyesmith.lab.page.write import write_page

__all__ = ["write_page"]

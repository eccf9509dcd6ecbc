from eyesmith.report.leaderboard.board import Board, Cell, Entry, SuiteBoard, make_board
from eyesmith.report.leaderboard.page import render_leaderboard
from eyesmith.report.leaderboard.table_csv import render_csv
from eyesmith.report.leaderboard.write import write_leaderboard

__all__ = [
    "Board",
    "Cell",
    "Entry",
    "SuiteBoard",
    "make_board",
    "render_csv",
    "render_leaderboard",
    "write_leaderboard",
]

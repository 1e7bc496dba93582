"""The commands that answer questions about a study: explain, verify, forecast, compare, and `load_study` for notebooks.

Nothing here changes a run or a result.
"""

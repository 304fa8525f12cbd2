"""Parquet files read row by row, with their declared sizes held first."""

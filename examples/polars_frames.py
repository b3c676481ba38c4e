"""Frames in, frames out: a Polars frame is a table by the name of its variable."""

import polars as pl

import dql

reviews = pl.DataFrame(
    {
        "film": ["Alien", "Cats", "Paddington 2"],
        "text": ["Terrifying and brilliant.", "I walked out after ten minutes.", "Pure joy from start to end."],
    }
)

labelled = dql.query("SELECT film, AI_CLASSIFY(text, ['positive', 'negative']) AS verdict FROM reviews").pl()
print(labelled.group_by("verdict").agg(pl.col("film")).sort("verdict"))

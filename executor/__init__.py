"""Physical plan to rows: Arrow operators around a batched inference engine."""

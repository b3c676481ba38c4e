"""The interactive shell: reading, completing, dot commands. What runs a query lies in dql.runner."""

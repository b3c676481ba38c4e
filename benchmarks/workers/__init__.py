"""Peers that live in an environment of their own, each a script that reads batches of prompts and writes answers."""

"""Models as the rest of dql sees them: where weights lie, what shape they have, how text becomes token ids."""

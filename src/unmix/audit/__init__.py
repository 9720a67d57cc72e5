"""What a fitted model and its data support: agreement of the starts, effects of the domains, the mixing."""

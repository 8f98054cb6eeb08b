"""Post-training: a fitted recommender goes on to learn what next-item prediction does not teach."""

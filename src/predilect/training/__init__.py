"""Training one network, predicting with it, and doing both over folds, systems and seeds."""

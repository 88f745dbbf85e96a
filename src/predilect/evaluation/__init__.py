"""Numbers from predictions and truth, with intervals; nothing here knows how the predictions were made."""

"""What a trained network shows of itself: where its heads look on a photograph, whether that is true, and which cases are alike."""

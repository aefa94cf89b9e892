"""Jobs: batches that are graded in the background and survive the death of the front door."""

"""What bridges versions of the mm packages; nothing else in this project may know of them."""

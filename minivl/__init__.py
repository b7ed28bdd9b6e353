"""MiniVL: a from-scratch, readable implementation of InfiniteVL (arXiv 2512.08829)."""

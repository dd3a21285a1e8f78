"""Loading many documents at once into an index that nobody reads yet: the stages, without what spreads them."""

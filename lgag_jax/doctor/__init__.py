"""The doctor: reads a data set before training and says in words what is wrong with it."""

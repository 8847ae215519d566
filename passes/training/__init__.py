"""Training on the IR: a graph as a torch module and back."""

"""The model as Ray Serve replicas, and the stages as the dispatcher calls them."""

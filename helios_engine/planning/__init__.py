"""Where the parts of the model run, and how they are made to fit: from sizes, before anything is loaded."""

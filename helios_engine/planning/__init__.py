"""Where the parts of the model run on a machine, and how they are made to fit: from sizes, before anything is loaded."""

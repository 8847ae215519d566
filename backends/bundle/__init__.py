"""The bundle: writing, describing, linking and loading compiled networks."""

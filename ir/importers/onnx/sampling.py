"""Reading images at computed coordinates."""

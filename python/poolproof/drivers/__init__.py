"""What is known of each driver: a file a driver, and what they all answer."""

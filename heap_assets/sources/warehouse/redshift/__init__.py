"""Amazon Redshift as a warehouse to read from and to publish to."""

"""What changes annotation's rows. Each service is one transaction, or says why not."""

"""From config.yaml to what is to be done: settings, variants, searches, and the plan files that the jobs read."""

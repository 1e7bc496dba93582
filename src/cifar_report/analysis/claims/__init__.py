"""The claims of `report/claims.yaml`, tested on a study's runs: the file, what it compares, and the verdicts."""

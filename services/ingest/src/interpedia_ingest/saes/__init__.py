"""SAEs: checked, registered and handed to a build in one transaction."""

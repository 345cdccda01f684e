"""What every live route does around its own work: admit, tokenise, borrow SAEs, compute, account for it."""

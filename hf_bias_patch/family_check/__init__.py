"""THE TABLE HELD AGAINST NUMBERS: small random models of every type, the sweep over them, drafts of new families."""

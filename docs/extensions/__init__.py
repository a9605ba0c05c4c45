"""What the site does by itself: the reference, its links, the menus, formulas without a script."""

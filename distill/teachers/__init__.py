"""Teachers: full-size iterative restorers that students are distilled from."""

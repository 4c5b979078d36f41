"""What is on this disk: what is whole, what is only listed, what may go, and what other programs left here."""

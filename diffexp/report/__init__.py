"""Tables, figures and the page about a study, from its run directories alone; no torch here."""

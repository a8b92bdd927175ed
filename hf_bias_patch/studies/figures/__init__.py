"""The figures of a study: each described once as plain data, then drawn for the page (Plotly) and for pictures."""

"""Reports: one HTML file from results, which needs no network. Panels of results, and the page that shows them."""

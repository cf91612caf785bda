# The commands of the project; each is a script that can be read.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak soak-kills fuzz

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: ## the sample app on Kelvin, until Ctrl-C
	@scripts/demo

test: ## everything that must hold: lint, tests, the stock client, a browser
	@scripts/test

lint: ## format, clippy, licences
	@scripts/test lint

bench: ## Kelvin and zero-cache side by side
	@scripts/bench

soak: ## a day in ten minutes: stock clients, five ends, threads held up
	@scripts/soak $(MINUTES)

soak-kills: ## the server killed fifty times under load, three ways
	@scripts/soak-kills

fuzz: ## every decoder under inputs that nobody has thought of, a minute each
	@scripts/fuzz

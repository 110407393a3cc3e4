#!/usr/bin/env python3
"""Trust stores: `scripts/setup_ca.py install | uninstall | status`. Needs nothing but a python3."""

import sys

import environment

environment.become(["ca", *sys.argv[1:]])

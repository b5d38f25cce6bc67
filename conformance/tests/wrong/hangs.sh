#!/bin/sh
# Never answers.
[ "$1" = --version ] || exec sleep infinity

#!/bin/sh
# Counts corruptions and ends as if there were none; its map is no map.
case $1 in
check) echo '{ "corruptions": 3 }' ;;
map) echo '[{ "start": 0 }]' ;;
dd) ;;
*) exec "$(dirname "$0")/accepts.sh" "$@" ;;
esac

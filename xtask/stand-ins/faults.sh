# Stands before the program $real. One call of them all goes wrong: FAULT_AT names it, as git-7, and FAULT says how.
name=${0##*/} n=1
set -o noclobber
until { echo "$*" > "$FAULTS/$name-$n"; } 2> /dev/null; do n=$((n + 1)); done
set +o noclobber
answer=$FAULTS/answer-$name-$n

refuse() { echo "$name was made to fail" >&2; exit 1; }
act() { "$real" "$@" > "$answer"; code=$?; }
whole() { "$cat" "$answer"; exit "$code"; }

[ "$FAULT" = gone ] && [ -e "$FAULTS/came" ] && refuse
if [ "$name-$n" != "$FAULT_AT" ]; then
  [ "$FAULT" = none ] || exec "$real" "$@"
  act "$@"
  whole
fi
echo "$name $*" > "$FAULTS/came"
case $FAULT in
  killed-before) kill -KILL $PPID; exit 1 ;;
  killed-after) act "$@"; kill -KILL $PPID ;;
  interrupted-before) kill -INT $PPID; exec "$real" "$@" ;;
  interrupted-after) act "$@"; kill -INT $PPID; whole ;;
  dies-before) kill -KILL $$ ;;
  dies-after) act "$@"; kill -KILL $$ ;;
  refuses-before | gone) refuse ;;
  refuses-after) act "$@"; refuse ;;
  hangs-before) exec "$sleep" 60 ;;
  hangs-after) act "$@"; exec "$sleep" 60 ;;
  cut) act "$@"; "$head" --bytes=-$((($("$wc" -c < "$answer") + 1) / 2)) "$answer"; exit "$code" ;;
esac

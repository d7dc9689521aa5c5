#!/bin/sh
# Takes the best of what fuzz/run.sh gathered for TARGET into corpus/TARGET: fuzz/keep.sh TARGET
#
# Inputs with a name of their own stay. Of the others at most 200 are kept, short ones first,
# since every test run replays them.
set -eu
cd "$(dirname "$0")"
target=$1
count_max=200
bytes_max=4096

program=.build/$(rustc -vV | sed -n 's/^host: //p')/release/$target
merged=.build/merged/$target
rm -rf "$merged"
mkdir -p "$merged"
# Named inputs first, so that what they cover is covered by them.
mkdir -p ".build/named/$target"
find "corpus/$target" -name '*.bin' -exec cp {} ".build/named/$target/" \;
"$program" -merge=1 -verbosity=0 "$merged" ".build/named/$target" \
    "corpus/$target" ".build/corpus/$target" 2>/dev/null

find "corpus/$target" -type f ! -name '*.bin' -delete
named=$(find "corpus/$target" -name '*.bin' | wc -l)
find "$merged" -type f -size -"$bytes_max"c -printf '%s %p\n' | sort -n \
    | head -n $((count_max > named ? count_max - named : 0)) | while read -r _ file; do
        hash=$(basename "$file")
        # One that is a named input already needs no second copy.
        cmp -s "$file" /dev/null || cp "$file" "corpus/$target/$hash"
    done
for file in "corpus/$target"/*.bin; do
    [ -e "$file" ] || continue
    rm -f "corpus/$target/$(sha1sum "$file" | cut -d ' ' -f 1)"
done
echo "$target: $(find "corpus/$target" -type f | wc -l) inputs"

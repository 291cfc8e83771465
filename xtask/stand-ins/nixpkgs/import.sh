# Copies the programs $files and their libraries to $out, so that they run where nothing else is.
mkdir -p "$out/bin" "$out/lib"
cp -L $files "$out/bin"
chmod u+w "$out"/bin/*
for library in $(ldd "$out"/bin/* | grep -o '/[^ ]*' | grep -v "^$out" | sort -u); do
  cp -L --no-clobber "$library" "$out/lib"
done
loader=$(basename "$(ls "$out"/lib/ld-linux* | head -n 1)")
for program in "$out"/bin/*; do
  # An rpath and not a runpath: it holds for the libraries of libraries too.
  "$patchelf" --set-interpreter "$out/lib/$loader" --force-rpath --set-rpath "$out/lib" "$program"
done
ln -s bash "$out/bin/sh"

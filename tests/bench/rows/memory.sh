# Resident memory of the agent, idle and busy.

. "$bench/process.sh"

title=memory

custom() { process_row memory; }

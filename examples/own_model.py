"""Any GGUF file or safetensors folder is a model: name its path in USING, or register it once and use the name."""

import dql

with dql.connect() as session:
    weights = session.models().pull("smollm2").path  # stands for a file of your own
    session.query(f"CREATE OR REPLACE MODEL house_model FROM '{weights}' WITH (context_length = 2048)")
    session.query("DESCRIBE MODEL house_model").show()
    session.query("GENERATE 'Say hello in French.' AS answer USING house_model WITH max_tokens = 12").show()
    session.query("DROP MODEL house_model")

"""The web page. Only this folder imports gradio."""
